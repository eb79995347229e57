"""What a recipe will take, before it runs: steps, operations, memory, devices, hours."""
