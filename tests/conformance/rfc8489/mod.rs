mod appendix_b_1;
mod section_9_1;
mod section_9_2;
