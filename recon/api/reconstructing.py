"""`Decoder.reconstruct`: pictures of test rows or of new signals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.api.scoring import Scoring
from recon.api.study import Study, as_one

if TYPE_CHECKING:
    from recon.api.pictures import Pictures


class Reconstructing(Scoring):
    """See `recon.Decoder`."""

    def reconstruct(
        self,
        data: Any = None,
        seeds: Sequence[int] = (0,),
        generator: str = "mini",
        *,
        subject: str | None = None,
        limit: int | None = None,
        out: str | Path | None = None,
        controls: Sequence[str] = (),
        steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        batch_size: int = 32,
        device: str = "auto",
        precision: str | None = None,
        guide: str | None = None,
        **conditioning: Any,
    ) -> Pictures:
        """Draw what was seen, as ``recon generate`` draws it.

        Parameters
        ----------
        data : Study or array, optional
            A study: its test pictures, averaged over repetitions. Signals (n, channels, samples) or (n, voxels) as
            recorded: one picture per trial. Left out: the study the decoder was fitted on.
        seeds : sequence of int
            Of the starting noise; one picture each.
        generator : str
            mini, a short name such as sd15 or sdxl-turbo, a folder in diffusers layout, or a hub id.
        subject : str, optional
            Whose test rows; left out, those of the person it was trained on.
        limit : int, optional
            Only the first test pictures.
        out : str or path, optional
            With the study it was fitted on: folder of the files (default: the run's).
        controls : sequence of str
            shuffled, zero_brain and oracle are drawn beside, into the folder; likeliest_library_image, for an
            encoding model, shows the library picture that fits best.
        steps, guidance_scale, strength : optional
            What the generator is meant for, where left out. ``strength``, 0 to 1: how far it may leave the coarse
            picture; 0 shows that picture itself, 1 starts from noise.
        precision : str, optional
            fp32, bf16 or fp16; left out, fp32 on a CPU and for mini, on a GPU bf16 where it has it, else fp16.
        guide : str, optional
            ``encoding`` or ``encoding:SCALE``: the response pulls at the picture while it is drawn.
        **conditioning
            Fields of `recon.decoding.bridges.choose.Conditioning`: adapter, bridge, library,
            low_level, words, best_of, ...

        Returns
        -------
        Pictures
            ``images`` (n, seeds, 3, H, W) in [0, 1].

        Raises
        ------
        UserError
            No conditioner for this layer, unknown options, signals that do not fit.
        """
        from recon.api.drawing import Drawing, draw_signals, draw_study

        drawing = Drawing.of(
            generator, seeds, steps, guidance_scale, strength, batch_size, device, precision, conditioning, guide
        )
        with self._own_encoder():
            if data is None or isinstance(data, Study):
                run, own = self._run_for(data, subject)
                if own:
                    return draw_study(run, drawing, out, limit, controls)
                raw, stimuli, rows = self._unseen(data, subject)
                x, ids = raw[:limit], [stimuli.ids[i] for i in rows][:limit]
                return draw_signals(self.run_, x, ids, drawing, [stimuli.load(int(i)) for i in rows][:limit])
            x = self.preparation(as_one(data))[:limit]
            return draw_signals(self.run_, x, [str(i) for i in range(len(x))], drawing)
