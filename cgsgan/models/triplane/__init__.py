"""EG3D's networks: latents to three feature planes, planes to density and colour, small pictures to large ones.

Names of the tensors of :class:`~cgsgan.models.triplane.generator.TriPlaneGenerator` beside the published ones, which
map one to one; filters (``resample_filter``) are constants here and no tensors:

=================================================  ====================================================
published                                          here
=================================================  ====================================================
``backbone.mapping.{w_avg, embed, fc0, fc1}``      ``mapping.{w_average, embed, body.layers.0, body.layers.1}``
``backbone.synthesis.b4.const``                    ``backbone.const``
``backbone.synthesis.b{4 2^i}.conv{0,1}``          ``backbone.blocks.{i}.conv{0,1}``
``backbone.synthesis.b{4 2^i}.torgb``              ``backbone.blocks.{i}.to_image``
``superresolution.block{0,1}.conv{0,1}``           ``superresolution.block{0,1}.conv{0,1}``
``superresolution.block{0,1}.torgb``               ``superresolution.block{0,1}.to_image``
``decoder.net.0``, ``decoder.net.2``               ``decoder.hidden``, ``decoder.out``
=================================================  ====================================================

A ``conv`` has ``weight``, ``bias``, ``affine.weight``, ``affine.bias``, ``noise_strength`` and the buffer
``noise_const``; a ``to_image`` has the first four. Shapes are the published ones.
"""
