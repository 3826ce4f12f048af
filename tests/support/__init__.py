"""Made-up networks and inputs that several tests share."""
