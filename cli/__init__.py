"""The command line program ``kithkin``: a thin skin over the other packages."""
