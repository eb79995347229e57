"""The assets, one module a stage. Each has `build(profile)`, which makes its definitions; what they share: `assets.published`."""
