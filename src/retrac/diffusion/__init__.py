"""From a noisy image to a loss per sample, and from noise to an image."""
