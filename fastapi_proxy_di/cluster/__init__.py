"""State that the processes of an app share through Redis or Valkey."""
