"""Training data: static images become short clips with exact masks."""
