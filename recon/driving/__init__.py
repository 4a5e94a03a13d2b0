"""What drives a unit, voxel, channel or region: its pictures, texts and places, and pictures made to drive it."""
