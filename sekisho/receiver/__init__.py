"""The build zone's git receiver: git over smart HTTP, with the gatekeeper's verdict inside the push."""
