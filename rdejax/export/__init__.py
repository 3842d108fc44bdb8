"""Results in the formats of other tools: COCO, YouTube-VIS, a PNG for each object, alpha video."""
