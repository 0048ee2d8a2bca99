"""The seams of the house: what one part may ask of another, with what None and raising mean."""
