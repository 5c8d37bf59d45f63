"""What families of texts can learn before pairs: see ``_pretraining`` and ``_contrasting``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional

from shopvision.encoders.text_networks import pool_states
from shopvision.matching.families._contrasting import Contrasts
from shopvision.matching.families._network import ItemNetwork, ItemReader
from shopvision.matching.families._pretraining import Pretrains
from shopvision.matching.families.text_pretraining import TextPretraining
from shopvision.matching.families.text_reading import TextItemReader
from shopvision.matching.families.towers import text_inputs

if TYPE_CHECKING:
    from shopvision.encoders.tokens import TokenBatch
    from shopvision.matching.families._parts import Parts
    from shopvision.matching.families._pretraining import PretrainingNetwork
    from shopvision.matching.families.item_tokens import ItemTokens


class TextStages(Pretrains, Contrasts):
    """A family around one text encoder, the submodule ``text`` of its networks."""

    def item_reader(self, arguments: Any, parts: Parts) -> ItemReader[Any]:
        """See ``Pretrains`` and ``Contrasts``; of a one-tower an item alone is as long as its half of a pair."""
        texts = arguments.texts
        if arguments.axes.interaction == "one_tower":
            texts = texts.model_copy(update={"max_length": -(-texts.max_length // 2)})
        return TextItemReader(texts.packer(parts.tokenizer, arguments.text_config))

    def item_vectors(self, network: Any, batch: Any) -> Tensor:
        """See ``Contrasts``: a two-tower's own vectors; of a one-tower the mean of the last states."""
        if isinstance(network, ItemNetwork):
            return functional.normalize(network.encode(batch), dim=1)
        states = network.text(**text_inputs(network.text, batch)).last_hidden_state
        return functional.normalize(pool_states(states, batch.attention_mask, "mean").float(), dim=1)

    def pretraining(self, network: Any, arguments: Any, parts: Parts, kept: ItemTokens) -> PretrainingNetwork:
        """See ``Pretrains``."""

        def vectors(tokens: TokenBatch) -> Tensor:
            return self.item_vectors(network, tokens)

        attributes = arguments.texts.builder != "title"
        return TextPretraining(network, parts, kept, vectors, vector_parts=self.vector_parts, attributes=attributes)
