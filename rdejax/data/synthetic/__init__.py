"""Images made of outlines and textures."""
