"""Where destinations come from: sources among the settings, asked again and again."""
