"""What a member does when it is asked how a model fares on its records; nothing leaves here unnoised.

`units` says which units evaluate, `artifact` scores them with the file that would ship, `judging` counts and releases, and
`admission` reads which evaluation a manifest asks for.
"""
