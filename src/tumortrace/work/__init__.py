"""Independent pieces of work: carried out in this process, by processes of this machine, or on a Ray cluster."""
