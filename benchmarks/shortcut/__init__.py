"""The shortcut laboratory: does a mitigation close the shortcut, at what cost, and is it the mitigation that does?"""
