"""The face: HTTP routes, renderings and the server that carries them."""
