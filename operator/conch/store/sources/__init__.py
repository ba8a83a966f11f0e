"""One module per kind of store, each giving a `Remote`; a claim is mounted and read in place."""
