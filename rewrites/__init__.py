"""The compiler: what qualifies, what carries a layout, where it should change, and the rewriting.

In the order of a graph's way through:

`sites`, `constraints`   which nodes may become c01b ops, and why the others may not
`carriers`               which ops between them can work in either layout
`shapes`, `cost`         what each version and each conversion takes, in seconds
`region`, `plan`         the planning problem, and its exact solution
`storage`                the layout in which weights are stored between calls
`apply`, `tidy`          the rewriting
`activations`            elementwise functions that Theano computes one by one, vectorised
`fusion`                 bias and activation in the last write of the kernel before them
`inplace`                results that may take the place of an operand
`lowered`                sums over channels, when Theano has written out what was abstract
`loops`                  what loops would convert in every step, converted before them
`record`                 what was done, for reports
"""
