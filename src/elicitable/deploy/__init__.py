"""What a person takes away from a race: an artefact that answers new rows, and the forms that it is exported to."""
