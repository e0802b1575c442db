"""x"""
LastLayer=last_layer=with_head=None
