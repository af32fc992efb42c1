"""Every call, once: its arguments, its request, and how to read the answer. The clients only carry them."""
