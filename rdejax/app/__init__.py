"""Drawing first masks, following them, and mending frames, in a browser on this machine."""
