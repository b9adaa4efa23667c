"""Networks: latents to scenes (generators) and images to scores (discriminators). Nothing here renders or trains."""
