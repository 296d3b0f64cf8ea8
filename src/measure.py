"""Measure a net, of a library or your own, on your images; or a run again.

    python -m src.measure net=torchvision/resnet18 data.root=/path/images
    python -m src.measure net=timm/resnet18 weights=FILE data.root=/path/images
    python -m src.measure net=my_package.my_module:MyNet data.root=/path/images
    python -m src.measure net=torchvision/vgg11 layers=list
    python -m src.measure net=torchvision/vgg11 data.root=/path beside=TABLE.csv
    python -m src.measure checkpoint=outputs/SWEEP/RUN/checkpoints/best.ckpt
    python -m src.measure checkpoint=PATH against=OTHER_PATH
    python -m src.measure checkpoint=PATH images=200 max_shift=4 out=again.csv

options, with their defaults in brackets:
  images=N  max_shift=PIXELS (8 at most)  seed=N  data.root=FOLDER
  what=shift,rolls,… (all, see measure.what)
  metamer_images=N (8)  metamer_starts=N (2)  metamer_steps=N (300)   with
      what=metamers: its size; 300 steps of ten photos take many minutes
  out=FILE (the run's measures.csv; of net=, outputs/measure/NAME/measures.csv)
      A page of figures is written beside it. Families in the table that what=
      does not name stay. A table measured with other settings (images,
      max_shift, seed, image files, net) is replaced as a whole if out= names
      it, else it is an error.
  against=FILE   compares layers with those of another run instead, on the same
      images (CKA; out=against-RUN.csv)
  wandb.mode=auto|online|offline|disabled (disabled)  wandb.project=NAME
  wandb.entity=NAME   a W&B run of its own, in the group "measure"
options of net=:
  weights=default|none|FILE|FILE:KEY   the library's own, downloaded; random
      ones, batch norms with the images' statistics; a .pt .pth .ckpt
      .safetensors file, read as data only; those under KEY in it
  classes=N (the library's)  size=PIXELS (the net's, 224 for your own)
  batch=N (125)  layers=NAME,PATTERN,…|list (the last of each resolution)
  data=SET (folder: data.root/CLASS/* or data.root/*)
  mean=R,G,B  std=R,G,B   of pixels in [0, 1], which the net is given as
      (pixels - mean) / std (the library's; 0 and 1)
  floor=true|false (true)   the same net with random weights beside it
  beside=TABLE,…   tables of other nets, measured on the same images, that the
      page compares it with
"""

import sys


def main() -> None:
    """Measure, write the table, and show its main numbers."""
    from .common.cli_errors import cli_errors

    with cli_errors():
        from .config import from_command_line
        from .measuring.options import LIST, Options, check_options

        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        check_options(options)
        if options.net and options.layers == LIST:
            from .measuring.layers import show_layers_of_net

            show_layers_of_net(options)
        elif options.net:
            from .measuring.net import measure_net

            measure_net(options)
        elif options.against:
            from .measuring.checkpoint import compare_layers

            compare_layers(options)
        else:
            from .measuring.table import refuse_options

            refuse_options(options)
            from .measuring.checkpoint import measure_again

            measure_again(options)


if __name__ == "__main__":
    main()
