"""What a trained net's features look like: channels, max-activating patches, class activation maps."""
