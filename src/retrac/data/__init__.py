"""Where samples come from: one `ImageDataset` from embedded, named, local or hub images.

Kept empty of imports, so that `retrac.data.config` costs nothing at start-up.
"""
