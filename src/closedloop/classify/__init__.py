"""Classification: ranked probabilities whose uncertainty is true."""
