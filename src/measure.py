"""Measure a net: one of a library with weights of your own on images of your own, or a finished run again.

    python -m src.measure net=torchvision/resnet18 data=folder data.root=/path/to/images
    python -m src.measure net=timm/resnet18.a1_in1k weights=FILE.safetensors data=folder data.root=/path/to/images
    python -m src.measure net=torchvision/vgg11 layers=list
    python -m src.measure checkpoint=outputs/SWEEP/RUN/checkpoints/best.ckpt
    python -m src.measure checkpoint=PATH against=outputs/SWEEP/OTHER/checkpoints/best.ckpt
    python -m src.measure checkpoint=PATH images=200 max_shift=4 out=again.csv

options: images=N  max_shift=PIXELS  seed=N  data.root=FOLDER  what=shift,rolls,… (all; see measure.what)
         out=FILE (the run's own measures.csv; of net=, outputs/measure/LIBRARY-NAME/measures.csv; a page of figures
         goes beside it: measures.html). Families in the table that are not in what= stay. A table measured with other
         settings (images, max_shift, seed, pictures, net) is replaced as a whole where out= names it, else refused
         wandb.mode=auto|online|offline|disabled (disabled: a look is often repeated, and each is a run of its own at
         W&B, in the group "measure")  wandb.project=NAME  wandb.entity=NAME (the run's own)
against=FILE: instead, how alike its layers are to those of another run, on the same images (CKA;
         out=the run's own against-RUN.csv)
of net=: weights=default (the library's, downloaded)|none (random; batch norms get the images' statistics)
         |FILE (.pt .pth .ckpt .safetensors, read as data only)|FILE:KEY (those under that key in it)
         classes=N (outputs, where FILE has others than the library's)  size=PIXELS (the net's own)
         layers=NAME,PATTERN,… (the last of each resolution)|list  data=SET (folder: data.root/CLASS/* or data.root/*)
         batch=N (125)  floor=true|false (the same net with random weights beside it)
"""

import sys


def main() -> None:
    """Measure, write the table, and show its main numbers."""
    from .config import cli_errors, from_command_line
    from .measuring.options import Options, check_options

    with cli_errors():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        check_options(options)
        if options.net:
            from .measuring.net import measure_net

            measure_net(options)
        elif options.against:
            from .measuring.checkpoint import compare_layers

            compare_layers(options)
        else:
            from .measuring.checkpoint import measure_again

            measure_again(options)


if __name__ == "__main__":
    main()
