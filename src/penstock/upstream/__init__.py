"""HTTP towards providers: a push-style client whose callbacks run from socket to log without await."""
