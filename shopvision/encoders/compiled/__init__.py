"""Networks compiled ahead of time, kept as shared libraries below ``SHOPVISION_HOME``, made beside the work.

What was compiled depends on the network, the processor or GPU, the dtype, the shapes and the version of torch, so a
package is found by a key of all of them (``key``) and never used under another. It is made in a process of its own at
low priority (``maker``, ``compile_process``), checked against the eager network there and again by whoever takes it up
(``module``), and kept with a note of its sha256 that is written last (``packages``).

``CompiledModule`` is what others use::

    network = CompiledModule(
        module, [InputSpec("uint8", (Free("batch", 2, 256), 224, 224, 3))], part="image encoder",
        device=torch.device("cpu"), dtype=torch.float32,
    )
    vectors = network(pixels)  # eagerly until there is a package for these shapes, then compiled
"""
