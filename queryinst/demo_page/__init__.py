"""The page of `queryinst.demo`: one image seen by every stage, and its pictures."""
