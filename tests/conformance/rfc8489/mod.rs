mod appendix_b_1;
mod section_14;
mod section_5;
mod section_6_3;
mod section_9;
mod section_9_1;
mod section_9_2;
mod section_9_2_nonce;
