"""From body to picture: rasteriser, neural networks, the avatar.  Knows nothing of losses and optimisers."""
