"""An application of a Django project: a shop, whose customers are no users of the project's own
model.
"""
