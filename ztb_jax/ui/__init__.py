"""`ztb ui`: runs in a browser, read and never written. Imports no jax."""
