"""Pre-training pairs and loops."""
