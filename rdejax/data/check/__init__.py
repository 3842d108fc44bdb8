"""What is broken or missing in training data."""
