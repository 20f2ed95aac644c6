mod section_7;
