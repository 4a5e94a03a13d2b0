"""Checksums of published files, where they are known: SHA-256 by the path below the study's root.

Hugging Face shows the SHA-256 of every file in large-file storage on the file's page; the values here stand there for
the commits named. The values of GitHub's files were taken from a copy of commit f4552ad.
"""

from __future__ import annotations

PUBLISHED = {
    # LidongYang/EEG_Image_decode, commit 6f6708a
    "preprocessed_MEG/sub-01/preprocessed_meg_training.pkl": (
        "65b8a29c9e53a24e4e67cbd08161e3e1049fac431822f4143e34329e8b5008ec"
    ),
    "preprocessed_MEG/sub-01/preprocessed_meg_zs_test.pkl": (
        "bc2294e0e2edb2755dbc4bb22391343b8ce9790d82fc1ecf66adb980b0cd5d98"
    ),
    "preprocessed_MEG/sub-02/preprocessed_meg_training.pkl": (
        "82b3d64964fc9d9f1ad50fe82d76703d3525ba80c0bae70c85b9041f47da3c0f"
    ),
    # pscotti/mindeyev2, commits 9b356f8 (betas) and d9c5d2a (pictures)
    "betas_all_subj02_fp32_renorm.hdf5": "1715f92a88cd730f7de0442ccdee7243e013a0a845e729737367b65185752594",
    "betas_all_subj03_fp32_renorm.hdf5": "1f4f14e92def2df061e1aecd521ee005aaf94282745ba166a80d98ee716a306c",
    "betas_all_subj04_fp32_renorm.hdf5": "52f1c44234905cb1c1b98be2f74b68a19f585e78f509f3530280aec43a3c6351",
    "betas_all_subj05_fp32_renorm.hdf5": "c4947217424a4de254100026c9d710b40f83e95d03f2eafd9f9abf1e3fbf29d5",
    "betas_all_subj06_fp32_renorm.hdf5": "87e353a879a5cee7088956a36137887ce54801f36f5d6d23a6aa21bea76adf1a",
    "betas_all_subj07_fp32_renorm.hdf5": "1ec5025d3c5c3d6d943b5af9f49b0246cf032df6c5a684b5d51bf15b3915909c",
    "betas_all_subj08_fp32_renorm.hdf5": "7d7cd263386a0273910f498046eb466e073480814ed52a08f01b662e5559feb1",
    "coco_images_224_float16.hdf5": "778fabfa5cc1e08896b8af3541279f8bc11b3f407d7372956622cffc2bf3f270",
    # cowleygroup/V4_compact_models
    "data_V4_responses/images/images_190925.zip": "765b4d4372302d4ed72c3382d41ece5ca55d7dcc3d84da7402091253529b87d1",
    "data_V4_responses/images/images_190927.zip": "d2469cc2caa629d4ed38e8d4964fb1de8c0b29e9937c25ce1c5838bc4e382653",
    "data_V4_responses/images/images_190928.zip": "6d90fdf2341e038beb57c16ce85f48c3a2bdfd450bc1c6440489529aead0f161",
    "data_V4_responses/images/images_190929.zip": "7fea6a28c092acfa646145813f532b2ea1d5a22a0b1bdade47d392b8f6bfb3f0",
    "data_V4_responses/images/images_210224.zip": "e2690810bee34c2e2821e5dd504c7970f3441579bc57659f27d2c11678b52c6b",
    "data_V4_responses/images/images_210305.zip": "9fab651e9c2d0b44091c2ea238c78d68fedf573cd7d4ae6b0545c5d84c121776",
    "data_V4_responses/images/images_210322.zip": "a72f357c73381fc6e496403820b38abe38c78b92f6d1c0b7153d6fe6d3986c32",
    "data_V4_responses/images/images_210325.zip": "992774eca3508a2ad01accb1a31f5f3e3d90248c49f4eec314f2a915a263e454",
    "data_V4_responses/responses_repeat_averaged/responses_190925.npy": (
        "2f94d7bcef0f68fecdb7472f509737fafac92477cf6b11a4966162b1b1072529"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_190927.npy": (
        "4c3c75ec72bc4bd3f0e22987a7b2e7e962af249d6577e8a6d727ea9075bde034"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_190928.npy": (
        "41707e2d31ace45da6d181ad28a91c299971d42430c91cc738602523e7d7eda6"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_190929.npy": (
        "18639c9e2b2baed54c4fb22e311d84dafbd986a12069370b1004880a721d2c4a"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_210224.npy": (
        "4dbb7367707a5ca47ab4cea863bbf4e9765b8409cb30216693721bddfad7abfe"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_210305.npy": (
        "00dce8d39558bfc3f5dd55c6f678c05de1b63895d56193379fd7dfe41fc703f0"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_210322.npy": (
        "1d643594633c7ad6d5281147bf1742275135507c8b283550e00e7028c65a5373"
    ),
    "data_V4_responses/responses_repeat_averaged/responses_210325.npy": (
        "555e67037182611969ab90da291dcc39601de4411f651a64ad60e90572cf59d3"
    ),
}
