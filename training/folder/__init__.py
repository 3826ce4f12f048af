"""A folder of pictures through the queues of ComfyUI servers; may import common."""
