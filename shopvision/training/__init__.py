"""What every trainer shares: configuration, the loop, exact gradients in little memory, checkpoints, metrics."""
