"""The models, the splitter and the auxiliary models."""
