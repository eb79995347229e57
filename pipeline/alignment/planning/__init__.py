"""What a profile's methods of alignment will take, before they run: steps, tokens, operations, memory, devices, hours."""
