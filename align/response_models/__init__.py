"""Pictures to responses: how features of a picture become the answer of a unit, voxel or channel. Arrays in and out."""
