"""The tree's way in for the requests of a stock `twisted.web` site."""
