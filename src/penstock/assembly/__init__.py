"""L5: the composition root, the only place that names concrete parts and puts them together.

`system` builds the whole, the modules beside it the parts. Nothing below knows what it was built with.
"""
