"""From a file to pixels ready for a model: readers, breast segmentation, geometry, contrast, preprocessing, Store."""
