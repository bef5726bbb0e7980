"""This project beside its peers: the same work in one run, and how many times faster it is done here."""
