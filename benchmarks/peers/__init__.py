"""Programs that run in `.venv-peers`, the environment of other people's packages; `make peers` builds it."""
